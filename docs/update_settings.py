"""Write the tables of docs/configuration.md anew from the models: `python docs/update_settings.py`."""

import re
from pathlib import Path

from pydantic import BaseModel

from medssl.config import FinetuneConfig, PretrainConfig, setting_rows

DOCUMENT = Path(__file__).parent / "configuration.md"


def table(model: type[BaseModel]) -> str:
    """One line per setting."""
    lines = ["| setting | kind | default | bounds | meaning |", "| --- | --- | --- | --- | --- |"]
    for row in setting_rows(model):
        default = row.default if row.default == "required" else f"`{row.default}`"
        lines.append(f"| `{row.key}` | {row.kind.replace('|', 'or')} | {default} | {row.bounds} | {row.meaning} |")
    return "\n".join(lines)


def updated(text: str) -> str:
    """The document with its tables as they should be."""
    for name, model in (("pretrain", PretrainConfig), ("finetune", FinetuneConfig)):
        section = re.compile(rf"(<!-- settings of {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = section.sub(lambda found, model=model: f"{found[1]}{table(model)}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
