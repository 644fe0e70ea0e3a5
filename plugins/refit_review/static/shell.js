"use strict";
// Airflow keeps the chosen theme under this name; "system", or nothing, leaves it to the browser.
(() => {
  const apply = () => {
    let theme = null;
    try {
      theme = localStorage.getItem("theme");
    } catch {
      // Storage may be closed to frames.
    }
    if (theme === "light" || theme === "dark") {
      document.documentElement.dataset.theme = theme;
    } else {
      delete document.documentElement.dataset.theme;
    }
  };
  apply();
  addEventListener("storage", apply);
})();
