// Asks for the figures every two seconds while the page is seen, and checks the texts of the form.
import { element } from "./elements.js";
import { bundle, decisions, facts, stages, texts } from "./figures.js";
import { verdict } from "./playground.js";

const EVERY_MS = 2000;
const KEY = "layerguard-key";
const part = (id) => document.getElementById(id);
const room = (id) => Math.max(part(id).clientWidth, 280);
const paused = () => part("pause").getAttribute("aria-pressed") === "true";

const ask = async (path, options = {}) => {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(options.body && { "content-type": "application/json" }), ...(key && { "x-api-key": key }) };
  const response = await fetch(path, { ...options, headers });
  part("key-form").hidden = response.status !== 401;
  const content = await response.json();
  if (!response.ok) throw new Error(content.error?.message ?? `status ${response.status}`);
  return content;
};

// The state is said only when it changes, so that a screen reader does not repeat it.
const say = (state, text) => {
  if (part("state").textContent === text) return;
  part("state").dataset.state = state;
  part("state").textContent = text;
};

const show = (status) => {
  const drifting = status.bundles.filter((one) => one.drifting).map((one) => one.name);
  if (!status.ready) say("starting", "Not ready: the bundles are being loaded, or the server ends");
  else if (drifting.length) say("drifting", `Ready; the traffic has drifted: ${drifting.join(", ")}`);
  else say("ready", "Ready");
  part("facts").replaceChildren(...facts(status));
  part("texts").replaceChildren(...texts(status, room("texts")));
  part("stages").replaceChildren(...stages(status, room("stages")));
  part("bundles").replaceChildren(...status.bundles.map(bundle));
  part("decisions").replaceChildren(...decisions(status));
  offer(status.bundles.map((one) => one.name));
};

const offer = (names) => {
  const select = part("bundle");
  if (names.join("\n") !== [...select.options].map((one) => one.value).join("\n")) {
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  }
  select.hidden = part("bundle-label").hidden = names.length < 2;
};

const refresh = async () => {
  try {
    show(await ask("page/status.json"));
  } catch (error) {
    say("lost", `No figures: ${error.message}`);
  }
};

const poll = async () => {
  if (!document.hidden && !paused()) await refresh();
  setTimeout(poll, EVERY_MS);
};

const check = async (event) => {
  event.preventDefault();
  const [prompt, response] = [part("prompt").value, part("response").value];
  const button = part("try-form").querySelector("button");
  button.disabled = true;
  try {
    const body = { prompt, ...(response && { response }), bundle: part("bundle").value || null };
    const answer = await ask("page/check", { method: "POST", body: JSON.stringify(body) });
    part("result").replaceChildren(...verdict(answer, response ? `${prompt}\n${response}` : prompt));
  } catch (error) {
    part("result").replaceChildren(element("p", { class: "verdict block" }, `No verdict: ${error.message}`));
  } finally {
    button.disabled = false;
  }
};

part("try-form").addEventListener("submit", check);
part("try-form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) part("try-form").requestSubmit();
});
part("pause").addEventListener("click", () => {
  const now = !paused();
  part("pause").setAttribute("aria-pressed", String(now));
});
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, part("key").value);
  refresh();
});
poll();
