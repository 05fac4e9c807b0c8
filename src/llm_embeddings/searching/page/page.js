"use strict";
const form = document.querySelector("form"), field = form.q, hits = document.querySelector("#hits");
let timer, asked;

async function search() {
  const query = new URLSearchParams(new FormData(form));
  history.replaceState(null, "", "/?" + query);
  asked?.abort();
  asked = new AbortController();
  query.set("part", "1");
  try {
    const answer = await fetch("/?" + query, { signal: asked.signal });
    if (answer.ok) hits.innerHTML = await answer.text();
  } catch (error) {
    if (error.name !== "AbortError") hits.querySelector("[role=status]").textContent = "No answer: is the search still running?";
  }
}

form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, 150);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  search();
});
document.addEventListener("keydown", (event) => {
  const places = [field, ...hits.querySelectorAll("summary")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "/" && event.target !== field) {
    event.preventDefault();
    field.select();
  } else if (step && places.includes(event.target)) {
    event.preventDefault();
    places[places.indexOf(event.target) + step]?.focus();
  }
});
