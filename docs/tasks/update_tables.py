"""Write the settings tables of the task pages anew from each task's Config: `python docs/tasks/update_tables.py`."""

import re
from pathlib import Path

from medssl.config import setting_rows
from medssl.plugins import load_task

PAGES = Path(__file__).parent
TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)
HEAD = "| setting | value | default | bounds | meaning |\n| --- | --- | --- | --- | --- |\n"


def settings_table(task: str) -> str:
    """Markdown table of a task's settings, keys as under `task:` in a configuration file."""
    rows = setting_rows(load_task(task).cls.Config)
    return HEAD + "".join(
        f"| `{row.key}` | {row.kind.replace('|', 'or')} | `{row.default}` | {row.bounds} | {row.meaning} |\n"
        for row in rows
    )


def updated(page: Path) -> str:
    """The page's text with its table as it should be."""
    return TABLE.sub(lambda _: settings_table(page.stem), page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in sorted(PAGES.glob("*.md")):
        if TABLE.search(page.read_text(encoding="utf-8")):
            page.write_text(updated(page), encoding="utf-8")
