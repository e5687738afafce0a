/** The embedded driver against the suite, and what only it has: folders, layouts, full disks. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLmdb } from '../../server/storage/lmdb.ts'
import { storageContract } from './storage.ts'

// In memory where there is such a folder: the tests are not about the disk.
const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

storageContract({
  name: 'lmdb',
  async open(opts) {
    const path = await mkdtemp(join(scratch, 'hermod-lmdb-'))
    let store = await openLmdb({ path, ...opts })
    return {
      get store() {
        return store
      },
      async reopen() {
        await store.close()
        store = await openLmdb({ path, ...opts })
        return store
      },
      location: JSON.stringify({ path }),
      async [Symbol.asyncDispose]() {
        await store.close()
        await rm(path, { recursive: true, force: true })
      },
    }
  },
  skip: {},
})
