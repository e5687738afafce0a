/** Runs one dialogue (format.ts) against a server. */
import { type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Via } from '../helpers/connection.ts'
import { matchElement, parseDocument, parsePattern } from '../helpers/xml.ts'
import { COMPONENT_STEPS } from './component-steps.ts'
import type { Dialogue, Step } from './format.ts'
import { accountOf, Stage, type Target } from './stage.ts'
import { STEPS } from './steps.ts'

/** What became of a dialogue: run to its end, or ended at a difference that its file announces. */
export type Outcome = { readonly kind: 'passed' } | { readonly kind: 'differs'; readonly reason: string }

/** Throws an Error with file, line and the clients' last lines when a step fails, or when an announced difference is gone. */
export async function runDialogue(dialogue: Dialogue, target: Target): Promise<Outcome> {
  await using stage = new Stage(target)
  const clients = dialogue.steps
    .map((step) => CLIENT.exec(step.text.replace(UNLESS, ''))?.[1] ?? '')
    .filter((name) => name !== '')
  for (const name of [...dialogue.accounts, ...clients.map(accountOf)]) await stage.account(name)
  for (const step of dialogue.steps) {
    const reason = step.differs.get(target.name)
    if (step.text.startsWith(UNLESS) && stage.bounced) continue
    try {
      if (reason !== undefined) stage.timeoutMs = 1500
      await perform(stage, step)
    } catch (error) {
      if (reason !== undefined) return { kind: 'differs', reason }
      const reasonText = error instanceof Error ? error.message : String(error)
      const message = `${dialogue.file}:${step.line}: ${step.text}\n${reasonText}\n${stage.otherLogs(reasonText)}`
      throw new Error(message, { cause: error })
    }
    if (reason !== undefined) {
      throw new Error(`${dialogue.file}:${step.line}: ${target.name} no longer differs here (${reason})`)
    }
  }
  return { kind: 'passed' }
}

/** Before a step that is left out when `receives nothing, or` got the error: the two lawful ways to treat a message. */
const UNLESS = 'unless it bounced, '

/** A step of a client: its name and what it does. `all settle` and `http GET ...` are no clients' steps. */
const CLIENT = /^(?!all |http )([a-z][a-z0-9-]*(?:\/[\w-]+)?) (.+)$/

async function perform(stage: Stage, step: Step): Promise<void> {
  const words = step.text.replace(UNLESS, '')
  const speaker = CLIENT.exec(words)?.[1] ?? ''
  const line = stage.fill(expandPushes(words, speaker))
  const payload = stage.fill(expandPushes(step.payload, speaker))
  const http = /^http GET (\S+) gives (\d+)(?: (\S+))?$/.exec(line)
  if (http !== null) return checkHttp(stage, http[1] ?? '', Number(http[2]), http[3], payload)
  if (line === 'all settle') return stage.settle()
  const [, name = '', action = ''] = CLIENT.exec(line) ?? []
  const connects = /^connects(?: by (tls|websocket))?$/.exec(action)
  if (connects !== null) {
    await stage.connect(name, (connects[1] ?? 'tcp') as Via)
    return
  }
  const serves = /^(?:connects|serves (\S+)) as a component$/.exec(action)
  if (serves !== null) {
    const component = await stage.connectComponent(name)
    if (serves[1] !== undefined) await component.serve(serves[1])
    return
  }
  const client = stage.client(name) ?? (await stage.connect(name, 'tcp'))
  for (const [wording, does] of [...STEPS, ...COMPONENT_STEPS]) {
    const match = wording.exec(action)
    if (match !== null) return does(stage, client, match.slice(1), payload)
  }
  throw new Error(`no such step: ${step.text}`)
}

/** A GET over plain HTTP; the pattern may be empty. */
async function checkHttp(
  stage: Stage,
  path: string,
  status: number,
  type: string | undefined,
  payload: string,
): Promise<void> {
  const { domain, ports } = stage.target
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const options = { host: '127.0.0.1', port: ports.http, path, headers: { host: domain } }
  request(options, resolve).on('error', reject).end()
  const response = await promise
  const body = await text(response)
  const head = response.headers['content-type'] ?? ''
  const got = `${response.statusCode} ${head}\n${body}`
  if (response.statusCode !== status || !head.startsWith(type ?? '')) throw new Error(`the answer was ${got}`)
  const [pattern] = parsePattern(payload)
  const difference = pattern && matchElement(pattern, parseDocument(body), stage.captures)
  if (difference !== undefined) throw new Error(`${difference}\nthe answer was ${got}`)
}

/** `<push>` stands for a roster push to the client (RFC 6121 §2.1.6). */
function expandPushes(payload: string, name: string): string {
  const start = `<iq type='set' id='*' from='?${accountOf(name)}@localhost' to='?${accountOf(name)}@localhost/${name.split('/')[1]}'>`
  return payload
    .replaceAll('<push>', `${start}<query xmlns='jabber:iq:roster' ver='?'>`)
    .replaceAll('</push>', '</query></iq>')
}
