// The page shows the state of the server. A change is sent at once, and is saved when the server answers.

const KEYS = "123456789abdefghijklmopqtvwxyz"; // c, n, r, s and u are commands
const SUGGESTED = 0.5;
const SMALL = 400; // pixels: smaller pictures are enlarged without blurring
const $ = (id) => document.getElementById(id);

let session = { title: "", items: [], names: [], colours: [], images: [], cooccurrence: [], undo: 0, redo: 0 };
let current = 0;
let sending = Promise.resolve();
let waiting = 0;
const pending = new Map(); // number of changes of each image that the server has not answered

// Requests to the server

async function ask(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await fetch(path, options).catch(() => {
    throw new Error("the server has ended; start ome tags again and reload");
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

// Requests are sent one after the other, so that changes are made in the order of the keys pressed.
function change(method, path, body, then = () => {}, answered = () => {}) {
  waiting += 1;
  tell("saving", "Saving…");
  sending = sending.then(async () => {
    try {
      const state = await ask(method, path, body).finally(() => {
        waiting -= 1;
        answered();
      });
      take(state);
      then(state);
      if (waiting === 0) tell("saved", "Saved");
    } catch (error) {
      tell("failed", `Not saved: ${error.message}`);
      await reload().catch(() => {});
      throw error;
    }
  });
  const result = sending;
  sending = sending.catch(() => {});
  return result;
}

function take({ number, item, ...rest }) {
  Object.assign(session, rest);
  // Another change of the same image has not been answered yet; its answer will replace this one.
  if (item !== undefined && !pending.has(number)) session.items[number] = item;
  draw();
}

async function reload() {
  session = await ask("GET", "api/session");
  current = Math.min(current, session.items.length - 1);
  draw();
}

function tell(state, text) {
  $("saved").dataset.state = state;
  $("saved").textContent = text;
}

// Actions of the user

const item = () => session.items[current];

function decide(tags, none) {
  const number = current;
  const before = item();
  const after = { ...before, tags, status: tags.length ? "tagged" : none ? "none" : "open" };
  session.items[number] = after;
  pending.set(number, (pending.get(number) ?? 0) + 1);
  draw();
  // Refused if another window has changed the image in the meantime.
  const seen = { tags: before.tags, status: before.status };
  change("PUT", `api/tags/${number}`, { tags, none, before: seen }, () => {}, () => {
    const left = pending.get(number) - 1;
    if (left) pending.set(number, left);
    else pending.delete(number);
  }).catch(() => {
    // If the server has ended, the state before the change is the saved one.
    if (session.items[number] === after) session.items[number] = before;
    draw();
  });
}

function toggle(name) {
  const on = item().tags.includes(name);
  decide(on ? item().tags.filter((tag) => tag !== name) : [...item().tags, name], false);
  announce(`${name} ${on ? "off" : "on"}`);
}

function toggleNone() {
  const on = item().status === "none";
  decide([], !on);
  announce(on ? "not decided" : "none of these");
}

function accept() {
  const { suggestion } = item();
  if (!suggestion) return;
  const tags = session.names.filter((name) => (suggestion[name] ?? 0) >= SUGGESTED);
  if (tags.length) decide(tags, false);
  announce(tags.length ? tags.join(", ") : "no suggestion above 50 %");
}

function step(way) {
  change("POST", `api/${way}`, {}, ({ number }) => {
    if (number !== undefined && number !== current) show(number);
  }).catch(() => {});
}

function show(number) {
  current = Math.max(0, Math.min(number, session.items.length - 1));
  draw();
  announce($("place").textContent + ", " + $("status").textContent);
}

function nextUntagged() {
  const { items } = session;
  for (let steps = 1; steps <= items.length; steps += 1) {
    const number = (current + steps) % items.length;
    if (items[number].status === "open") return show(number);
  }
  announce("every image is decided");
  return undefined;
}

// Drawing

function draw() {
  if (!session.items.length) return;
  document.title = `${session.title}: tags`;
  $("folder").textContent = session.title;
  drawPicture();
  drawClasses();
  drawProgress();
  drawTogether();
  $("undo").disabled = !session.undo;
  $("redo").disabled = !session.redo;
  $("previous").disabled = current === 0;
  $("next").disabled = current === session.items.length - 1;
}

function drawPicture() {
  const { title, picture, status, split, uncertainty } = item();
  if ($("picture").getAttribute("src") !== picture) {
    $("broken").hidden = true;
    $("picture").hidden = false;
    $("picture").src = picture;
    $("picture").alt = title;
    const following = session.items[current + 1];
    if (following) new Image().src = following.picture;
  }
  $("place").textContent = `${current + 1} of ${session.items.length}`;
  $("title").textContent = title;
  $("status").textContent = { open: "not decided yet", tagged: "tagged", none: "none of the classes" }[status];
  $("status").dataset.status = status;
  $("split").hidden = split === "train";
  $("split").textContent = split;
  $("doubt").hidden = uncertainty === undefined;
  $("doubt").textContent = `doubt ${Math.round(100 * uncertainty)} %`;
}

function drawClasses() {
  const { suggestion, tags, status } = item();
  const list = $("classes");
  // Buttons are only replaced if the classes change: a button replaced during a click would not receive it.
  if (list.dataset.names !== JSON.stringify(session.names)) {
    list.dataset.names = JSON.stringify(session.names);
    const empty = make("li", { className: "empty", textContent: "No class yet: press c and type a name." });
    list.replaceChildren(...(session.names.length ? session.names.map(classButton) : [empty]));
  }
  for (const button of list.querySelectorAll("button")) {
    const { name } = button.dataset;
    const probability = suggestion?.[name];
    const on = tags.includes(name);
    button.ariaPressed = String(on);
    button.classList.toggle("suggested", probability >= SUGGESTED);
    button.querySelector(".probability").textContent = probability === undefined ? "" : `${Math.round(100 * probability)} %`;
    button.querySelector(".mark").textContent = on ? "✓" : "";
  }
  $("none").ariaPressed = String(status === "none");
  $("accept").hidden = !suggestion;
  for (const part of document.querySelectorAll(".suggesting")) part.hidden = !suggestion;
}

function classButton(name, index) {
  const button = make("button", { type: "button", ariaPressed: "false" });
  button.dataset.name = name;
  if (KEYS[index]) {
    button.setAttribute("aria-keyshortcuts", KEYS[index]);
    button.append(make("kbd", { textContent: KEYS[index], ariaHidden: "true" }));
  }
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = session.colours[index];
  button.append(
    swatch,
    make("span", { className: "name", textContent: name, title: name }),
    make("span", { className: "probability", title: "probability according to the classifier" }),
    make("span", { className: "mark", ariaHidden: "true" }),
  );
  return make("li", {}, button);
}

function drawProgress() {
  const { items } = session;
  const tagged = items.filter(({ status }) => status === "tagged").length;
  const none = items.filter(({ status }) => status === "none").length;
  const text = `${tagged} of ${items.length} tagged` + (none ? `, ${none} with none` : "");
  $("progress").textContent = text;
  const canvas = $("overview");
  canvas.setAttribute("aria-label", text);
  canvas.width = Math.max(1, canvas.clientWidth * devicePixelRatio);
  const style = getComputedStyle(document.documentElement);
  const pen = canvas.getContext("2d");
  const width = canvas.width / items.length;
  const gap = width > 4 ? 1 : 0;
  // Bars differ in height as well as in colour.
  const heights = { tagged: 14, none: 8, open: 3 };
  const [done, rest] = [style.getPropertyValue("--accent"), style.getPropertyValue("--soft")];
  items.forEach(({ status }, number) => {
    pen.fillStyle = status === "tagged" ? done : rest;
    pen.fillRect(number * width, 14 - heights[status], Math.max(1, width - gap), heights[status]);
  });
  pen.fillStyle = style.getPropertyValue("--focus");
  const mark = Math.max(3, width - gap);
  pen.fillRect(Math.min(current * width, canvas.width - mark), 0, mark, 14);
}

function drawTogether() {
  const { names, cooccurrence, images } = session;
  const used = names.map((_, index) => index).filter((index) => images[index] > 0);
  $("together").hidden = used.length < 2;
  if (used.length < 2) return;
  const short = (index) => make("th", { scope: "col", textContent: KEYS[index] ?? "·", title: names[index] });
  const head = make("tr", {}, make("td", {}), ...used.map(short));
  const lines = used.map((row) => {
    const title = `${names[row]}: ${images[row]} images`;
    const first = make("th", { scope: "row", textContent: `${KEYS[row] ?? "·"} ${names[row]}`, title });
    const cells = used.map((column) => {
      const fraction = cooccurrence[row][column];
      const cell = make("td", { textContent: Math.round(100 * fraction) });
      cell.title = `${cell.textContent} % of the images with ${names[row]} have ${names[column]}`;
      if (row === column) cell.className = "self";
      else cell.style.background = `rgb(var(--heat) / calc(${fraction} * var(--hottest)))`;
      return cell;
    });
    return make("tr", {}, first, ...cells);
  });
  $("matrix").replaceChildren(make("thead", {}, head), make("tbody", {}, ...lines));
  const pairs = used.flatMap((row) => used.filter((column) => column !== row).map((column) => cooccurrence[row][column]));
  const mean = pairs.reduce((sum, fraction) => sum + fraction, 0) / pairs.length;
  $("mean").textContent = `Of the images with the row's class, % that have the column's. Mean ${Math.round(100 * mean)} %: the lower, the more the tags can teach.`;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function announce(text) {
  $("announcement").textContent = text;
}

// Classes by name

function openNaming() {
  $("refused").hidden = true;
  $("name").value = "";
  drawUnused();
  $("naming").showModal();
  $("name").focus();
}

function drawUnused() {
  const unused = session.names.filter((_, index) => session.images[index] === 0);
  const buttons = unused.map((name) => {
    const button = make("button", { type: "button", textContent: `Remove ${name}` });
    button.addEventListener("click", () => changeClass("DELETE", name).then(drawUnused));
    return button;
  });
  const note = make("p", { className: "note", textContent: buttons.length ? "No image has these:" : "" });
  $("unused").replaceChildren(note, ...buttons);
}

async function changeClass(method, name) {
  try {
    await change(method, "api/classes", { name });
    return true;
  } catch (error) {
    $("refused").textContent = error.message;
    $("refused").hidden = false;
    tell("saved", "Saved"); // the state is that before the refused change
    return false;
  }
}

$("naming").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("name").value;
  if (await changeClass("POST", name)) {
    $("naming").close();
    announce(`class ${name} added`);
  }
});
$("cancel").addEventListener("click", () => $("naming").close());

// Keys, clicks, touch

const COMMANDS = {
  ArrowLeft: () => show(current - 1),
  ArrowRight: () => show(current + 1),
  Home: () => show(0),
  End: () => show(session.items.length - 1),
  Enter: nextUntagged,
  n: nextUntagged,
  0: toggleNone,
  s: accept,
  u: () => step("undo"),
  r: () => step("redo"),
  c: openNaming,
  "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    event.preventDefault();
    step(key === "y" || event.shiftKey ? "redo" : "undo");
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A button with the focus handles Enter itself.
  if (key === "Enter" && document.activeElement instanceof HTMLButtonElement) return;
  const name = session.names[KEYS.indexOf(key)];
  const command = COMMANDS[key] ?? (key.length === 1 && name !== undefined ? () => !event.repeat && toggle(name) : null);
  if (command === null) return;
  event.preventDefault();
  command();
});

// After a click, the button loses the focus, so that keys work on the page; a focus set by Tab stays.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && event.detail > 0 && !button.closest("dialog")) button.blur();
  const name = button?.dataset.name;
  if (name !== undefined) toggle(name);
});

for (const [id, command] of Object.entries({
  none: toggleNone,
  accept,
  add: openNaming,
  undo: COMMANDS.u,
  redo: COMMANDS.r,
  previous: COMMANDS.ArrowLeft,
  next: COMMANDS.ArrowRight,
  untagged: nextUntagged,
  help: COMMANDS["?"],
})) $(id).addEventListener("click", command);

$("overview").addEventListener("click", (event) => {
  show(Math.floor((event.offsetX / $("overview").clientWidth) * session.items.length));
});

$("picture").addEventListener("load", () => {
  const { naturalWidth, naturalHeight } = $("picture");
  $("picture").classList.toggle("small", Math.max(naturalWidth, naturalHeight) < SMALL);
});
$("picture").addEventListener("error", async () => {
  const src = $("picture").getAttribute("src");
  const answer = await fetch(src).catch(() => null);
  $("picture").hidden = true;
  $("broken").hidden = false;
  $("broken").textContent = answer ? await answer.text() : "the server has ended; start ome tags again and reload";
});

addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
// Another window or device may have changed tags in the meantime.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && waiting === 0) reload().catch(() => {});
});

reload().then(() => {
  const first = session.items.findIndex(({ status }) => status === "open");
  show(first < 0 ? 0 : first);
}).catch((error) => tell("failed", error.message));
