// What is shown once: a new key with a call that uses it, a new sign-in link.

const part = (note, name) => note.querySelector(`[data-of=${name}]`);

function reveal(note) {
  note.hidden = false;
  note.focus();
}

document.getElementById("make").addEventListener("done", ({ target, detail }) => {
  const note = document.getElementById("made"), call = part(note, "curl");
  part(note, "name").textContent = detail.name;
  part(note, "key").textContent = detail.key;
  const body = JSON.stringify({ model: call.dataset.model, messages: [{ role: "user", content: "Hello" }] });
  call.textContent = `curl ${call.dataset.url}/v1/chat/completions \\\n  -H "Authorization: Bearer ${detail.key}" \\\n  -H "Content-Type: application/json" \\\n  -d '${body}'`;
  target.reset();
  reveal(note);
});

document.getElementById("link").addEventListener("done", ({ detail }) => {
  const note = document.getElementById("linked");
  part(note, "url").textContent = detail.url;
  reveal(note);
});
