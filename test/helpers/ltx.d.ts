/** Types for the part of ltx (https://github.com/xmppjs/ltx) that the tests use; the package ships none. */
declare module 'ltx' {
  export type Node = Element | string
  export class Element {
    constructor(name: string, attrs?: Readonly<Record<string, string>>)
    name: string
    parent: Element | null
    children: Node[]
    attrs: Record<string, string>
    is(name: string, ns?: string): boolean
    getName(): string
    getNS(): string | undefined
    findNS(prefix?: string): string | undefined
    getChild(name: string, ns?: string): Element | undefined
    getChildren(name: string, ns?: string): Element[]
    getChildText(name: string, ns?: string): string | null
    getChildElements(): Element[]
    getText(): string
    append(...nodes: Node[]): void
    root(): Element
    toString(): string
  }
  export function escapeXML(text: string): string
  export function escapeXMLText(text: string): string
}
