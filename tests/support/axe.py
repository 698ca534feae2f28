"""What axe finds wrong with the accessibility of the page that a browser shows."""

from typing import Any

from support import npm

RUN = """
const [done] = arguments;
axe.run(document, { resultTypes: ["violations"], iframes: false }).then(
  ({ violations }) => {
    done(violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`)));
  },
  (error) => done([String(error)]),
);
"""


def violations(driver: Any) -> list[str]:
    """Rule and element of each violation; frames of other documents are left out.

    Args:
        driver: Selenium's, with a page.
    """
    source = (npm.folder("axe-core", "4.14.1") / "axe.min.js").read_text()
    driver.execute_script(source)
    found: list[str] = driver.execute_async_script(RUN)
    return found
