/** The parts of ltx that the parser benchmark uses; the package has no types. */
declare module 'ltx/lib/Element.js' {
  export default class Element {
    constructor(name: string, attrs: Record<string, string>)
    readonly name: string
    readonly parent: Element | null
    readonly attrs: Record<string, string>
    append(...nodes: Element[]): this
    t(text: string): this
    toString(): string
  }
}

declare module 'ltx/lib/parsers/ltx.js' {
  export default class LtxParser {
    on(event: 'startElement', handle: (name: string, attrs: Record<string, string>) => void): this
    on(event: 'endElement', handle: (name: string) => void): this
    on(event: 'text', handle: (text: string) => void): this
    write(data: string): void
  }
}
