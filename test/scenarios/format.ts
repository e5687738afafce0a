/** Reads a dialogue file (`*.xmpp`); README.md in this folder describes the format. It knows nothing of XMPP: run.ts does the steps. */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** Servers a dialogue can be run against. */
export type TargetName = 'hermod' | 'prosody' | 'ejabberd'

/** One line of the script, with the indented lines below it joined into one payload. */
export interface Step {
  readonly line: number
  readonly text: string
  readonly payload: string
  /** Servers that fail here, with the reason; the rest of the dialogue is not run against them. */
  readonly differs: ReadonlyMap<string, string>
}

/** One conversation with its own accounts. */
export interface Dialogue {
  readonly file: string
  readonly line: number
  readonly title: string
  readonly specs: readonly string[]
  /** Servers it is not run against, with the reason. */
  readonly skip: ReadonlyMap<string, string>
  /** Accounts that exist though no client logs in. */
  readonly accounts: readonly string[]
  readonly steps: readonly Step[]
}

interface Draft {
  file: string
  line: number
  title: string
  specs: string[]
  skip: Map<string, string>
  accounts: string[]
  steps: Step[]
}

/** The dialogues of one file; throws with file and line on anything it does not understand. */
export function parseDialogues(text: string, file: string): Dialogue[] {
  const common: Draft = { file, line: 1, title: '', specs: [], skip: new Map(), accounts: [], steps: [] }
  const dialogues: Draft[] = []
  let draft = common
  let differs = new Map<string, string>()
  const lines = text.split('\n')
  for (let at = 0; at < lines.length; at++) {
    const line = (lines[at] ?? '').trimEnd()
    if (line === '' || line.startsWith('#')) continue
    const bad = (reason: string): never => {
      throw new Error(`${file}:${at + 1}: ${reason}: ${line}`)
    }
    if (/^\s/.test(line)) bad('an indented line must follow a step that ends with a colon')
    if (line.startsWith('== ')) {
      const { specs, skip, accounts } = common
      draft = { ...common, line: at + 1, title: line.slice(3), steps: [], specs: [...specs] }
      Object.assign(draft, { skip: new Map(skip), accounts: [...accounts] })
      dialogues.push(draft)
      continue
    }
    const colon = /^(.*?):(?:\s+(.*))?$/.exec(line)
    const text = colon?.[1] ?? line
    const inline = colon?.[2] ?? ''
    const about = /^(skip|differs) (prosody|ejabberd)$/.exec(text)
    if (text === 'spec') draft.specs = [inline]
    else if (text === 'accounts') draft.accounts.push(...inline.split(/\s+/))
    else if (about?.[1] === 'skip') draft.skip.set(about[2] ?? '', inline || bad('a reason is missing'))
    else if (about?.[1] === 'differs') differs.set(about[2] ?? '', inline || bad('a reason is missing'))
    else {
      if (draft === common) bad('a step before the first dialogue')
      const block: string[] = []
      while (colon !== null && inline === '' && /^\s+\S/.test(lines[at + 1] ?? ''))
        block.push(lines[++at] ?? '')
      if (colon !== null && inline === '' && block.length === 0) bad('nothing follows the colon')
      draft.steps.push({ line: at + 1 - block.length, text, payload: inline || joinLines(block), differs })
      differs = new Map()
    }
  }
  for (const dialogue of dialogues) {
    if (dialogue.specs.length === 0) throw new Error(`${file}:${dialogue.line}: no spec is cited`)
    if (dialogue.steps.length === 0) throw new Error(`${file}:${dialogue.line}: no steps`)
  }
  return dialogues
}

/** Lines of XML become one text: no white space between tags, one space inside a tag. */
function joinLines(lines: readonly string[]): string {
  let text = ''
  for (const line of lines.map((l) => l.trim())) {
    text += text === '' || text.endsWith('>') || line.startsWith('<') ? line : ` ${line}`
  }
  return text
}

/** All dialogues of a folder, by file. */
export function loadDialogues(folder: string): Map<string, Dialogue[]> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.xmpp'),
  )
  return new Map(
    files
      .sort()
      .map((name) => [
        basename(name, '.xmpp'),
        parseDialogues(readFileSync(join(folder, name), 'utf8'), name),
      ]),
  )
}
