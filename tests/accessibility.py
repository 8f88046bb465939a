"""axe-core on a page in a browser: every rule once, and contrasts in both colour schemes.

A check of contrast takes a millisecond per text, and a table has hundreds of texts that look alike. So contrasts are
checked for the first and the last text of each look.
"""

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.sync_api import Page

_RULES = "axe.run({ rules: { 'color-contrast': { enabled: false } }, resultTypes: ['violations'] })"
_CONTRASTS = """
(() => {
  const looks = new Map([[null, ""]]); // of what is behind and around the content of an element
  const lookOf = (element) => {
    if (!looks.has(element)) {
      const { backgroundColor, backgroundImage, opacity, position } = getComputedStyle(element);
      const own = [backgroundColor, backgroundImage, opacity].join(" ");
      const plain = own === "rgba(0, 0, 0, 0) none 1";
      const place = position === "static" || position === "relative" ? "" : element.className;
      looks.set(element, lookOf(element.parentElement) + (plain ? "" : "/" + own) + place);
    }
    return looks.get(element);
  };
  const hasText = (element) =>
    element.matches("input, select, textarea") ||
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const first = new Map();
  const last = new Map();
  for (const element of document.body.querySelectorAll("*")) {
    if (hasText(element) && element.checkVisibility({ visibilityProperty: true })) {
      const { color, fontSize, fontWeight } = getComputedStyle(element);
      const look = [color, fontSize, fontWeight, lookOf(element)].join(" ");
      if (!first.has(look)) first.set(look, element);
      last.set(look, element);
    }
  }
  const include = [...new Set([...first.values(), ...last.values()])];
  return axe.run({ include }, { runOnly: ["color-contrast"], resultTypes: ["violations"] });
})()
"""
_LISTED = """.then(({ violations }) =>
  violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html)}`))"""


def violations(page: Page) -> list[str]:
    """Return the violations that axe finds in the light and in the dark scheme. The page stays in the light one."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found: list[str] = page.evaluate(_RULES + _LISTED)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        found += page.evaluate(_CONTRASTS + _LISTED)
    return found
