// The pad in a notebook: Python answers.
export default {
  render({model, el}) {
    const {show} = pad(el, {names: model.get("names"), examples: model.get("examples"), changed(pixels, settings) {
      model.set("settings", settings);
      model.set("drawing", new DataView(pixels.buffer));
      model.save_changes();
    }});
    model.on("change:reply", () => show(model.get("reply")));
  },
};
