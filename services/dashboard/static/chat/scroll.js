// The talk stays at its end while it grows, unless the person has scrolled up to read.

const NEAR = 30; // pixels from the end that count as the end

// `on()` after something has grown; `end()` to go to the end in any case; `start()` to show the beginning.
export function scroller(box, control) {
  let following = true;
  const near = () => box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  const on = () => {
    if (following) box.scrollTop = box.scrollHeight;
    control.hidden = following || near() || !box.querySelector(".message");
  };
  const end = () => { following = true; on(); };
  const start = () => { following = false; box.scrollTop = 0; on(); };
  box.addEventListener("scroll", () => {
    following = near();
    on();
  }, { passive: true });
  box.addEventListener("wheel", (event) => { if (event.deltaY < 0) following = false; }, { passive: true });
  control.addEventListener("click", end);
  new ResizeObserver(on).observe(box.firstElementChild);
  new ResizeObserver(on).observe(box);
  return { on, end, start };
}
