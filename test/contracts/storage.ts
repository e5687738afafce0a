/**
 * The storage contract as a test suite: a driver is accepted when all of it passes. A driver's test file is
 * one call of {@link storageContract}; what it skips stands there with the reason and is printed.
 */
import { expect } from 'chai'
import type { Store } from '../../server/storage/contract.ts'
import { archiveGroup } from './storage/archive.ts'
import { docsGroup } from './storage/docs.ts'
import { keysGroup } from './storage/keys.ts'
import { startChild } from './storage/kit.ts'
import type { Child, Contract, Fixture, Test } from './storage/kit.ts'
import { numbersGroup } from './storage/numbers.ts'
import { pagingGroup } from './storage/paging.ts'
import { processesGroup } from './storage/processes.ts'
import { randomGroup } from './storage/random.ts'
import { storeGroup } from './storage/store.ts'

export type { Contract, Fixture } from './storage/kit.ts'

/** Registers the whole suite for one driver. */
export function storageContract(contract: Contract): void {
  describe(`storage contract: ${contract.name}`, () => {
    let shared: Fixture | undefined
    let hosts = 0
    const titles = new Set<string>()

    before('open', async function () {
      this.timeout(60_000)
      shared = await contract.open({})
    })
    after('close', async () => {
      await shared?.[Symbol.asyncDispose]()
    })

    const test: Test = (title, run, timeoutMs = 20_000) => {
      expect(titles.has(title), `two tests named ${title}`).to.equal(false)
      titles.add(title)
      const reason = contract.skip[title]
      if (reason !== undefined) {
        it.skip(`${title} (${contract.name} does not: ${reason})`, () => undefined)
        return
      }
      it(title, async () => {
        const fixtures: Fixture[] = []
        const children: Child[] = []
        if (shared === undefined) throw new Error('no store is open')
        const store: Store = shared.store
        hosts += 1
        const host = `h${hosts}.example`
        try {
          await run({
            store,
            host,
            storage: store.open(host, 'm'),
            async fresh(opts = {}) {
              const fixture = await contract.open(opts)
              fixtures.push(fixture)
              return fixture
            },
            async child({ location }) {
              if (location === undefined) throw new Error('this driver cannot be opened by two processes')
              const child = await startChild(contract.name, location)
              children.push(child)
              return child
            },
          })
        } finally {
          for (const child of children) await child.kill()
          for (const fixture of fixtures) await fixture[Symbol.asyncDispose]()
        }
      }).timeout(timeoutMs)
    }

    describe('documents', () => docsGroup(test))
    describe('owners and keys', () => keysGroup(test))
    describe('archive', () => archiveGroup(test))
    describe('archive paging', () => pagingGroup(test))
    describe('counters and leases', () => numbersGroup(test))
    describe('store', () => storeGroup(test))
    describe('several processes', () => processesGroup(test))
    describe('random', () => randomGroup(test))

    it('skips only tests that exist', () => {
      expect(Object.keys(contract.skip).filter((title) => !titles.has(title))).to.deep.equal([])
    })
  })
}
