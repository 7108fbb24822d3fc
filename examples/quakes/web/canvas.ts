/** A canvas in the page's own size, whatever the pixels of its screen, and in the colours of its style. */
export class Canvas {
  readonly element: HTMLCanvasElement;
  readonly context: CanvasRenderingContext2D;
  width = 0;
  height = 0;
  #style: CSSStyleDeclaration;

  constructor(id: string, resized: () => void) {
    this.element = document.getElementById(id) as HTMLCanvasElement;
    this.context = this.element.getContext("2d") as CanvasRenderingContext2D;
    this.#style = getComputedStyle(document.documentElement);
    new ResizeObserver(() => {
      this.#fit();
      resized();
    }).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resized);
    this.#fit();
  }

  colour(name: string): string {
    return this.#style.getPropertyValue(name);
  }

  #fit(): void {
    const { clientWidth, clientHeight } = this.element;
    const scale = devicePixelRatio || 1;
    this.width = clientWidth;
    this.height = clientHeight;
    this.element.width = Math.round(clientWidth * scale);
    this.element.height = Math.round(clientHeight * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
  }
}
