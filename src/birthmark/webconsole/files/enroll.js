// Files that are dropped are those of the form; what is too large is told before it is sent.
"use strict";
(() => {
  const form = document.getElementById("drop");
  if (!form) return;
  const input = document.getElementById("files");
  const zone = form.querySelector(".dropzone");
  const chosen = document.getElementById("chosen");
  const button = form.querySelector("button");
  const MIB = 1024 * 1024;
  const tell = () => {
    const size = [...input.files].reduce((sum, one) => sum + one.size, 0);
    const most = Number(input.dataset.most);
    const isLarge = size > most;
    const format = new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: 1 });
    const isOne = input.files.length === 1;
    const words = isLarge ? chosen.dataset.large : isOne ? chosen.dataset.file : chosen.dataset.files;
    const values = { size: format.format(size / MIB), most: format.format(most / MIB), count: format.format(input.files.length), name: isOne ? input.files[0].name : "" };
    chosen.hidden = !input.files.length;
    chosen.textContent = words.replace(/\{(\w+)\}/g, (_, key) => values[key]);
    chosen.classList.toggle("bad", isLarge);
    button.disabled = isLarge;
    input.setCustomValidity(isLarge ? chosen.textContent : "");
  };
  input.addEventListener("change", tell);
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    zone.classList.add("is-over");
  };
  // Anywhere on the page: a file beside the field would otherwise be opened in its place.
  addEventListener("dragover", over);
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) zone.classList.remove("is-over"); });
  addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    zone.classList.remove("is-over");
    input.files = event.dataTransfer.files;
    tell();
    if (!button.disabled) button.focus();
  });
  addEventListener("pageshow", tell);
})();
