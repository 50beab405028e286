"""Hands the dependency lists of settings.ini to setuptools; everything else is in pyproject.toml."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

settings = ConfigParser()
settings.read_string((Path(__file__).parent / "settings.ini").read_text(encoding="utf-8"))


def requirements(section, name):
    return settings[section][name].split()


setup(
    install_requires=requirements("dependencies", "runtime"),
    extras_require={name: requirements("extras", name) for name in settings["extras"]},
)
