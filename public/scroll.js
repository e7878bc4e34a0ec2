// @ts-check
// Keeps the end of a growing page in view, as long as its reader is there.

/** The end is in view, give or take this, in px. */
const AT_END_PX = 64;

/** @param {HTMLElement} endButton leads back to the end; shown to a reader who has scrolled away */
export function createScroll(endButton) {
  let following = true; // the reader has not scrolled away
  let lastY = 0;

  const isAtEnd = () => document.documentElement.scrollHeight - innerHeight - scrollY <= AT_END_PX;

  /** @param {boolean} isFollowing */
  function follow(isFollowing) {
    following = isFollowing;
    if (endButton.hidden !== following) endButton.hidden = following; // set again, it would be a change of the page, in each frame
  }

  function toEnd() {
    follow(true);
    scrollTo(0, document.documentElement.scrollHeight);
  }

  // Once a frame, after the layout: no token costs a layout of its own.
  new ResizeObserver(() => { if (following || isAtEnd()) toEnd(); }).observe(document.body);
  addEventListener("resize", () => { if (following) toEnd(); }); // before the scroll event of a keyboard that opens
  addEventListener("scroll", () => {
    // Text that came since is no reason not to follow it; who scrolls up has one.
    if (isAtEnd()) follow(true);
    else if (scrollY < lastY) follow(false);
    lastY = scrollY;
  }, { passive: true });
  endButton.addEventListener("click", toEnd);
  for (const type of ["resize", "scroll"]) globalThis.visualViewport?.addEventListener(type, aboveKeyboard);
  return { toEnd };
}

/** Where a keyboard covers the page, and does not resize it (Safari). */
function aboveKeyboard() {
  const { height, offsetTop, scale } = /** @type {VisualViewport} */ (visualViewport);
  const covered = scale === 1 ? Math.max(0, innerHeight - height - offsetTop) : 0;
  document.documentElement.style.setProperty("--keyboard", `${Math.round(covered)}px`);
}
