// What keeps a page from being read or reached: missing names, faint text, a page wider than the screen.
const faults = [];
const seen = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
const told = (node) => `${node.tagName} ${(node.id || node.className || node.textContent).toString().slice(0, 40)}`;
if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the screen");
for (const field of document.querySelectorAll("input, select, textarea"))
  if (seen(field) && !field.labels.length) faults.push(`no label: ${told(field)}`);
for (const image of document.querySelectorAll("img"))
  if (!image.hasAttribute("alt")) faults.push(`no alternative: ${told(image)}`);
for (const control of document.querySelectorAll("a, button, summary"))
  if (seen(control) && !control.innerText.trim()) faults.push(`no name: ${told(control)}`);
const levels = [...document.querySelectorAll("main h1, main h2, main h3, main h4")].filter(seen)
  .map((heading) => Number(heading.tagName[1]));
levels.forEach((level, at) => level > (levels[at - 1] ?? 0) + 1 && faults.push(`a heading skips to ${level}`));
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const colour = (text) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, at) => {
  const part = rgb[at] / 255;
  return sum + weight * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
}, 0);
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const found = colour(getComputedStyle(node).backgroundColor);
    if (found[3] === 255) return found;
  }
  return [255, 255, 255];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !seen(node) || node.closest("svg, :disabled, option")) continue;
  const pair = [light(colour(getComputedStyle(node).color)), light(ground(node))].sort((one, other) => other - one);
  const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${told(node)}`);
}
return [...new Set(faults)];
