// The versions beside this one, for who reads from a disk as for who reads from a server: a script, as pages of a disk may fetch nothing.
(() => {
  const site = new URL(__md_scope.href.replace(/[^/]*$/, ""));
  const base = site.pathname.endsWith("/ja/") ? new URL("..", site) : site, list = document.createElement("script");
  list.src = new URL("../versions.js", base).href;
  list.onload = () => {
    const here = decodeURIComponent(base.pathname.split("/").at(-2)), versions = window.birthmarkVersions || [];
    const label = document.createElement("label"), select = document.createElement("select");
    label.className = "bm-versions";
    select.setAttribute("aria-label", site !== base ? "バージョン" : "Version");
    for (const one of versions) select.add(new Option(one.title, one.version, false, one.version === here));
    select.onchange = () => {
      // The same page of the other version, if it has it.
      const page = location.href.slice(base.href.length).replace(/[?#].*$/, "");
      const other = versions.find((one) => one.version === select.value);
      location.href = new URL(`../${other.version}/${other.pages.includes(page) ? page : "index.html"}`, base).href;
    };
    label.append(select);
    document.querySelector(".md-header__option, .md-header__button[for=__search]")?.before(label);
  };
  document.head.append(list);
})();
