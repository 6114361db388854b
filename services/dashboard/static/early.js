// Until the page's own scripts have run, a button of theirs would do nothing, a form of theirs would be sent by the browser
// and lost, and a chosen file would never be read. What is done so early is kept, and done when they are there. (Loaded
// before the page, not as a module.)
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
    } else if (event.type === "change" && event.target.matches("input[type=file]")) {
      const { target } = event;
      kept.push(() => target.isConnected && target.dispatchEvent(new Event("change", { bubbles: true })));
    } else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const types = ["submit", "click", "change"];
  for (const type of types) document.addEventListener(type, keep, true);
  document.addEventListener("DOMContentLoaded", () => { // modules have run by then
    for (const type of types) document.removeEventListener(type, keep, true);
    for (const act of kept) act();
  });
}
