/** The servers that real clients are tried against: ours, and Prosody to show that the test itself is right. */
import { describe } from 'mocha'
import { prosodyProgram, startProsody } from '../helpers/peers.ts'
import { startServer } from '../helpers/server.ts'
import type { Target } from '../scenarios/stage.ts'

/** A running server whose certificate is in the file `ca`. */
export type Running = Target &
  AsyncDisposable & { readonly ca: string; readonly ports: { readonly http: number } }

/** Names and starters; Prosody only where it is installed. */
export const targets: readonly (readonly ['hermod' | 'prosody', () => Promise<Running>])[] = [
  ['hermod', async () => Object.assign(await startServer(), { name: 'hermod' as const })],
  ...(prosodyProgram === undefined ? [] : [['prosody', () => startProsody({ requireTls: true })] as const]),
]

/** `describe`, or a suite that is skipped aloud (at home) or fails (with CI set) when `missing` names a program. */
export function describeWith(missing: string | undefined, title: string, body: () => void): void {
  if (missing === undefined) {
    describe(title, body)
    return
  }
  if (process.env['CI'] === undefined) {
    describe(`${title} [not run: ${missing} is not installed]`, () => it('is run'))
    return
  }
  describe(title, () => {
    it('has its program', () => {
      throw new Error(`${missing} is not installed; in CI it must be`)
    })
  })
}
