"use strict";
// Draws the figures in the theme's colours, and shows the pose of the selected gallery card in the 3D viewer.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  const gallery = read("gallery-poses");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: false };
  const font = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", size: 13 };

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // Replaces the colour names text and muted by the theme's colours.
  const coloured = (value) => {
    const colours = { text: ink("text"), muted: ink("muted") };
    const revive = (key, inner) => (key === "color" && inner in colours ? colours[inner] : inner);
    return JSON.parse(JSON.stringify(value), revive);
  };

  const themed = (layout) => {
    const axis = {
      automargin: true, fixedrange: true, gridcolor: ink("rule"), linecolor: ink("rule"), zeroline: false,
      ticks: "", tickfont: { color: ink("muted"), size: 12 },
    };
    const whole = {
      ...layout,
      font: { ...font, color: ink("text") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: 8, b: 8 },
      dragmode: false,
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 } },
      hoverlabel: { font, align: "left" },
      showlegend: layout.showlegend ?? true,
    };
    for (const key of ["xaxis", "yaxis"]) {
      const own = layout[key] ?? {};
      const title = typeof own.title === "string" ? { text: own.title, standoff: 8, font: { size: 12.5 } } : own.title;
      whole[key] = { ...axis, ...own, title };
    }
    return whole;
  };

  const drawChart = (place) => {
    const figure = figures[place.dataset.figure];
    Plotly.react(place, coloured(figure.data), themed(figure.layout), config);
  };

  const plot = document.getElementById("viewer-plot");
  const cards = [...document.querySelectorAll("[data-pose]")];
  const START = { x: 0.4, y: -1.4, z: 0.25 }; // close to the camera of the image
  let chosen = 0;

  // Converts camera axes (x right, y down, z away) to plotly's (x right, y away, z up).
  const bonesOf = (pose, bones, look) => {
    const trace = {
      type: "scatter3d", mode: "lines+markers", x: [], y: [], z: [], text: [], hovertemplate: "%{text}<extra></extra>",
      line: { color: look.colour, width: look.width, dash: look.dash ?? "solid" },
      marker: { color: look.colour, size: look.size }, name: look.name,
    };
    for (const [parent, joint] of bones) {
      for (const end of [parent, joint]) {
        trace.x.push(pose[end][0]);
        trace.y.push(pose[end][2]);
        trace.z.push(-pose[end][1]);
        trace.text.push(`${look.name}: ${gallery.joints[end]}`);
      }
      for (const axis of ["x", "y", "z", "text"]) trace[axis].push(null);
    }
    return trace;
  };

  const tracesOf = ({ truth, predicted }) => {
    const side = (joints) => gallery.bones.filter(([, joint]) => joints.includes(joint));
    const sides = [...gallery.left, ...gallery.right];
    const middle = gallery.bones.filter(([, joint]) => !sides.includes(joint));
    const grey = { name: "truth", colour: ink("truth"), width: 5, size: 2.5 };
    return [
      ...(truth === null ? [] : [bonesOf(truth, gallery.bones, grey)]), // a user's photo has no true pose
      bonesOf(predicted, middle, { name: "predicted", colour: ink("middle"), width: 7, size: 3 }),
      bonesOf(predicted, side(gallery.left), { name: "predicted", colour: ink("left"), width: 7, size: 3 }),
      bonesOf(predicted, side(gallery.right), { name: "predicted", colour: ink("right"), width: 7, size: 3 }),
    ];
  };

  const drawViewer = () => {
    const reach = Math.max(...gallery.poses.flatMap((p) => [...(p.truth ?? []), ...p.predicted]).flat().map(Math.abs));
    const axis = {
      range: [-1.05 * reach, 1.05 * reach], showticklabels: false, title: { text: "" }, showspikes: false,
      gridcolor: ink("rule"), zeroline: false, showbackground: false, nticks: 5,
    };
    const layout = {
      scene: {
        xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", dragmode: "turntable",
        camera: plot.layout?.scene?.camera ?? { eye: START },
      },
      uirevision: "kept", showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", margin: { l: 0, r: 0, t: 0, b: 0 },
      font: { ...font, color: ink("text") }, hoverlabel: { font },
    };
    return Plotly.react(plot, tracesOf(gallery.poses[chosen]), layout, config);
  };

  const describe = () => {
    document.getElementById("viewer-caption").textContent = gallery.poses[chosen].caption;
    for (const card of cards) card.setAttribute("aria-pressed", String(Number(card.dataset.pose) === chosen));
  };

  const turn = (sideways, upwards, nearer) => {
    const { x, y, z } = plot.layout.scene.camera.eye;
    const radius = Math.hypot(x, y, z);
    const azimuth = Math.atan2(y, x) + sideways;
    const limit = Math.PI / 2 - 0.05;
    const elevation = Math.max(-limit, Math.min(limit, Math.asin(z / radius) + upwards));
    const further = Math.max(0.6, Math.min(4, radius * nearer));
    const level = further * Math.cos(elevation);
    const eye = { x: level * Math.cos(azimuth), y: level * Math.sin(azimuth), z: further * Math.sin(elevation) };
    Plotly.relayout(plot, { "scene.camera.eye": eye });
  };

  const STEP = Math.PI / 18;
  const keys = {
    ArrowLeft: () => turn(-STEP, 0, 1), ArrowRight: () => turn(STEP, 0, 1),
    ArrowUp: () => turn(0, STEP, 1), ArrowDown: () => turn(0, -STEP, 1),
    "+": () => turn(0, 0, 1 / 1.15), "=": () => turn(0, 0, 1 / 1.15), "-": () => turn(0, 0, 1.15),
    Home: () => Plotly.relayout(plot, { "scene.camera.eye": START, "scene.camera.up": { x: 0, y: 0, z: 1 } }),
  };

  // Figures far below the window are drawn when they come close to it, so that the page opens fast.
  const places = [...document.querySelectorAll("[data-figure]"), ...(gallery === null ? [] : [plot])];
  const drawn = new Set();
  const draw = (place) => {
    drawn.add(place);
    return place === plot ? drawViewer() : drawChart(place);
  };
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        watch.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const place of places) watch.observe(place);
  dark.addEventListener("change", () => [...drawn].forEach(draw));
  addEventListener("beforeprint", () => places.filter((place) => !drawn.has(place)).forEach(draw));

  if (gallery !== null) {
    describe();
    plot.addEventListener("keydown", (event) => {
      if (drawn.has(plot) && event.key in keys && !event.ctrlKey && !event.metaKey && !event.altKey) {
        keys[event.key]();
        event.preventDefault();
      }
    });
    for (const card of cards) {
      card.addEventListener("click", () => {
        chosen = Number(card.dataset.pose);
        describe();
        draw(plot);
      });
    }
  }
})();
