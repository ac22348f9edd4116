// A spectrogram that moves: drawn by the graphics processor where there is one, else on a plain canvas.

export const BANDS = 160;
const LENGTH = 600;
const STOPS = {
  dark: [[0, 13, 19, 26], [0.3, 24, 49, 83], [0.55, 24, 132, 140], [0.75, 120, 205, 120], [0.9, 250, 214, 110], [1, 255, 250, 230]],
  light: [[0, 255, 255, 255], [0.3, 214, 230, 244], [0.55, 110, 176, 206], [0.75, 44, 98, 160], [0.9, 56, 38, 110], [1, 30, 10, 50]],
};

function colours(stops) {
  const table = new Uint8Array(1024);
  for (let i = 0; i < 256; i++) {
    const x = i / 255;
    const next = Math.max(1, stops.findIndex((s) => s[0] >= x));
    const [a, b] = [stops[next - 1], stops[next]];
    const t = (x - a[0]) / (b[0] - a[0]);
    for (let c = 0; c < 3; c++) table[4 * i + c] = Math.round(a[c + 1] + t * (b[c + 1] - a[c + 1]));
    table[4 * i + 3] = 255;
  }
  return table;
}

const VERTEX = `#version 300 es
out vec2 at;
void main() {
  at = vec2(gl_VertexID == 1 ? 2.0 : 0.0, gl_VertexID == 2 ? 2.0 : 0.0);
  gl_Position = vec4(2.0 * at - 1.0, 0.0, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
uniform sampler2D past;
uniform sampler2D table;
uniform float oldest;
out vec4 colour;
void main() {
  float level = texture(past, vec2(at.y, at.x + oldest)).r;
  colour = texture(table, vec2((255.0 * level + 0.5) / 256.0, 0.5));
}`;

// Whether there is a graphics processor; one that is only imitated costs more than a plain canvas.
const GPU = (() => {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  const name = told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "";
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
})();

// The levels of all columns are one texture, a ring in time; a new column is one small upload, a frame is one triangle.
class Gpu {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
    this.build();
  }

  build() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    ["past", "table"].forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.uniform1i(gl.getUniformLocation(program, name), unit);
    });
    this.oldest = gl.getUniformLocation(program, "oldest");
  }

  recolour(table, kept) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, table);
    gl.activeTexture(gl.TEXTURE0);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, BANDS, LENGTH, 0, gl.RED, gl.UNSIGNED_BYTE, kept);
  }

  paint(x, column) {
    this.gl.texSubImage2D(this.gl.TEXTURE_2D, 0, 0, x, BANDS, 1, this.gl.RED, this.gl.UNSIGNED_BYTE, column);
  }

  draw(at) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.uniform1f(this.oldest, at / LENGTH);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}

class Plain {
  constructor(canvas) {
    this.canvas = canvas;
    this.screen = canvas.getContext("2d", { alpha: false });
    this.past = Object.assign(document.createElement("canvas"), { width: LENGTH, height: BANDS });
    this.ink = this.past.getContext("2d", { alpha: false });
    this.column = this.ink.createImageData(1, BANDS);
  }

  recolour(table, kept) {
    this.table = table;
    for (let x = 0; x < LENGTH; x++) this.paint(x, kept.subarray(x * BANDS, (x + 1) * BANDS));
  }

  paint(x, column) {
    const pixels = this.column.data;
    for (let band = 0; band < BANDS; band++) {
      const from = 4 * column[band];
      const to = 4 * (BANDS - 1 - band);
      for (let c = 0; c < 4; c++) pixels[to + c] = this.table[from + c];
    }
    this.ink.putImageData(this.column, x, 0);
  }

  draw(at) {
    const { width, height } = this.canvas;
    const one = width / LENGTH;
    const old = LENGTH - at;
    this.screen.drawImage(this.past, at, 0, old, BANDS, 0, 0, old * one, height);
    if (at > 0) this.screen.drawImage(this.past, 0, 0, at, BANDS, old * one, 0, at * one, height);
  }
}

export class Spectrogram {
  constructor(canvas) {
    this.canvas = canvas;
    this.kept = new Uint8Array(LENGTH * BANDS);
    this.at = 0;
    this.ink = GPU ? new Gpu(canvas) : new Plain(canvas);
    canvas.dataset.ink = GPU ? "gpu" : "plain";
    // A driver that starts again takes everything with it: nothing is drawn until it is back.
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.ink.build();
      this.recolour();
    });
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.recolour();
  }

  fit() {
    const scale = Math.min(2, devicePixelRatio);
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * scale));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * scale));
    this.draw();
  }

  recolour() {
    this.ink.recolour(colours(STOPS[document.documentElement.dataset.theme] ?? STOPS.dark), this.kept);
    this.fit();
  }

  // Columns of levels 0..255, the lowest band first.
  add(spectra) {
    for (let k = 0; k < spectra.length; k += BANDS) {
      const column = spectra.subarray(k, k + BANDS);
      this.kept.set(column, this.at * BANDS);
      this.ink.paint(this.at, column);
      this.at = (this.at + 1) % LENGTH;
    }
  }

  draw() {
    this.ink.draw(this.at);
  }
}
