// Until the page's own scripts have run, a button of theirs would do nothing, a form of theirs would be sent by the browser
// and lost, and nobody would look at what was chosen or typed. What is done so early is kept, and done when they are there.
// (Loaded before the page, not as a module.)
{
  const kept = [];
  const forms = "form:is([data-api], :not([action], [method], [hx-get]))";

  const keep = (event) => {
    const button = event.target.closest("button");
    if (event.type === "submit" && event.target.matches(forms)) {
      const { target, submitter } = event;
      kept.push(() => target.isConnected && target.requestSubmit(submitter));
    } else if (event.type === "click" && button && (button.type === "button" || !button.form)) {
      kept.push(() => button.isConnected && button.click());
    } else if (event.type === "change" || event.type === "input") {
      const { target, type } = event;
      kept.push(() => target.isConnected && target.dispatchEvent(new Event(type, { bubbles: true })));
    } else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const types = ["submit", "click", "change", "input"];
  for (const type of types) document.addEventListener(type, keep, true);
  document.addEventListener("DOMContentLoaded", () => { // modules have run by then
    for (const type of types) document.removeEventListener(type, keep, true);
    setTimeout(() => kept.forEach((act) => act())); // after htmx, which begins at this event, too
  });
}
