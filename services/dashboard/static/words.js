// The difference of two texts by words: what the second lacks and what it has instead.

const LARGEST = 4_000_000; // cells of the table; beyond it the middle counts as changed as a whole

// [[kind, text], …]: kind is "" for what both have, "del" for what only `before` has, "ins" for what only `after` has.
export function difference(before, after) {
  const a = before.match(/\s+|\S+/g) ?? [], b = after.match(/\s+|\S+/g) ?? [];
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const parts = [["", a.slice(0, start)], ...middle(a.slice(start, a.length - end), b.slice(start, b.length - end)), ["", a.slice(a.length - end)]];
  return joined(parts.map(([kind, words]) => [kind, words.join("")]).filter(([, text]) => text));
}

// Longest common subsequence by dynamic programming (Cormen et al., Introduction to Algorithms, 15.4).
function middle(a, b) {
  if (a.length * b.length > LARGEST) return [["del", a], ["ins", b]];
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const parts = [];
  let i = 0, j = 0;
  while (i < a.length && j < b.length) {
    if (a[i] === b[j]) { parts.push(["", [a[i]]]); i++; j++; }
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) parts.push(["del", [a[i++]]]);
    else parts.push(["ins", [b[j++]]]);
  }
  return [...parts, ["del", a.slice(i)], ["ins", b.slice(j)]];
}

// One removal and one insertion for each stretch that changed: white space alone does not end a stretch.
function joined(parts) {
  const found = [];
  let same = "", gone = "", come = "", space = "";
  const flush = () => {
    for (const [kind, text] of [["del", gone], ["ins", come], ["", space]]) if (text) found.push([kind, text]);
    gone = come = space = "";
  };
  for (const [kind, text] of parts) {
    if (kind) {
      if (same) found.push(["", same]);
      same = "";
      if (gone || come) { gone += space; come += space; }
      space = "";
      if (kind === "del") gone += text;
      else come += text;
    } else if (!text.trim() && (gone || come)) space += text;
    else { flush(); same += text; }
  }
  flush();
  if (same) found.push(["", same]);
  return found;
}
