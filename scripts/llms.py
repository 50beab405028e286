"""Write llms.txt, the table of contents for machines that read: what there is, and where. `make site` publishes it."""
import re

from series import ROOMS, ROOT, head, notebooks

PAGE = ROOT / "llms.txt"
TEXTS = {"README.md": "start, lessons, library, results", "nbs/glossary.md": "every term, with its lesson",
         "nbs/departures.md": "where the series found something else than is often taught",
         "benchmarks/README.md": "what is measured, how, and on which machine",
         "CONTRIBUTING.md": "how a lesson is changed"}


def page() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    parts = [f"{readme[0]}\n\n> {readme[1]}"]
    for room, name in zip(ROOMS, ("The path, in order", "Deeper: one further question each", "Tools: the plumbing")):
        lines = [f"- [{title}]({path.relative_to(ROOT).as_posix()}): " + re.sub(r"\[(.+?)\]\(.+?\)", r"\1", begins)
                 for path in notebooks() if path.parent == ROOT / room for title, begins in [head(path)]]
        parts.append("\n".join([f"## {name}\n", *lines]))
    parts.append("\n".join(["## Texts\n", *(f"- [{name}]({name}): {about}" for name, about in TEXTS.items())]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
