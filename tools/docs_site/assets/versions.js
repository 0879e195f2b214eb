// The versions beside this one, for who reads from a disk as for who reads from a server: a script, as pages of a disk may fetch nothing.
(() => {
  const base = new URL(__md_scope.href.replace(/[^/]*$/, "")), list = document.createElement("script");
  list.src = new URL("../versions.js", base).href;
  list.onload = () => {
    const here = decodeURIComponent(base.pathname.split("/").at(-2)), versions = window.birthmarkVersions || [];
    const label = document.createElement("label"), select = document.createElement("select");
    label.className = "bm-versions";
    select.setAttribute("aria-label", document.documentElement.lang === "ja" ? "バージョン" : "Version");
    for (const one of versions) select.add(new Option(one.title, one.version, false, one.version === here));
    select.onchange = () => {
      // The same page of the other version, if it has it.
      const page = location.href.slice(base.href.length).replace(/[?#].*$/, "");
      const other = versions.find((one) => one.version === select.value);
      location.href = new URL(`../${other.version}/${other.pages.includes(page) ? page : "index.html"}`, base).href;
    };
    label.append(select);
    document.querySelector(".md-header__topic")?.append(label);
  };
  document.head.append(list);
})();
