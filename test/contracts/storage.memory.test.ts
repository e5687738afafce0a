/** The reference driver against the suite. */
import { openMemory } from '../../server/storage/memory.ts'
import { storageContract } from './storage.ts'

const volatile = 'keeps its data in this process only'

storageContract({
  name: 'memory',
  async open(opts) {
    const store = await openMemory(opts)
    return {
      store,
      reopen: () => Promise.reject(new Error(volatile)),
      [Symbol.asyncDispose]: () => store.close(),
    }
  },
  skip: {
    'purgeOwner knows collections of an earlier run': volatile,
    'everything is there after close and reopen': volatile,
    'an index declared after a restart finds the documents stored before': volatile,
    'close waits for the writes before it': volatile,
    "two processes see each other's writes": volatile,
    'a collection and an index that another process makes are seen': volatile,
    'update and counter lose nothing between processes': volatile,
    'with writers in several processes no id appears below one already seen': volatile,
    'a lease is held by one process': volatile,
    'a process killed while it writes loses nothing it was told is stored': volatile,
    'random sequences of commands give what the memory driver gives': 'is what the others are compared with',
  },
})
