// Each tile has its layers as pictures; the viewer lays two of them over one another.
for (const tile of document.querySelectorAll(".layered")) {
  const viewer = tile.querySelector(".viewer");
  const stack = viewer.querySelector(".stack");
  const slider = viewer.querySelector("input");
  const layers = [...tile.querySelectorAll(".layers img")];

  const show = (select) => {
    const picture = stack.querySelector("." + select.dataset.side);
    picture.src = layers[select.selectedIndex].src;
    picture.alt = select.value;
  };
  const divide = () => stack.style.setProperty("--at", slider.value + "%");
  const follow = (event) => {
    const box = stack.getBoundingClientRect();
    slider.value = (100 * (event.clientX - box.left)) / box.width;
    divide();
  };

  for (const select of viewer.querySelectorAll("select")) {
    select.addEventListener("change", () => show(select));
    show(select);
  }
  slider.addEventListener("input", divide);
  stack.addEventListener("pointerdown", (event) => {
    stack.setPointerCapture(event.pointerId);
    follow(event);
  });
  stack.addEventListener("pointermove", (event) => {
    if (stack.hasPointerCapture(event.pointerId)) follow(event);
  });
  divide();
  viewer.hidden = false;
}
