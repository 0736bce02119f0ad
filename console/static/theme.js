// Runs before the first paint: the viewer's choice, else the system's.
(() => {
  const chosen = localStorage.getItem("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = localStorage.getItem("theme") || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
  };
  document.documentElement.dataset.theme = chosen || (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => { apply(); window.dispatchEvent(new Event("themechange")); });
})();
