/**
 * What can be seen of the data file before LMDB opens it: LMDB ends the process without a word (SIGSEGV,
 * SIGBUS) when the file is not one of its own or was cut off. Reads the two meta pages (mdb.c, MDB_meta),
 * changes nothing, does not check more.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { endianness } from 'node:os'

const magic = 0xbeefc0de
// Places in a page with a 64-bit build: MDB_page has 24 bytes, then MDB_meta.
const magicAt = 24
const pageSizeAt = 48
const lastPageAt = 144
const transactionAt = 152
const metaBytes = 160

/**
 * Why a data file cannot be opened, as the end of a sentence; undefined when it looks right, or is empty or
 * missing.
 */
export function flaw(path: string): string | undefined {
  // Files are in the byte order of the machine; others than these are rare and go unchecked.
  if (endianness() !== 'LE') return undefined
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  try {
    const first = readMeta(file, 0)
    if (first === undefined)
      return fstatSync(file).size === 0 ? undefined : 'data.mdb is not a file of this store'
    const second = readMeta(file, first.pageSize)
    if (second === undefined) return 'data.mdb is damaged: its second page is not what it should be'
    const { pageSize, lastPage } = second.transaction > first.transaction ? second : first
    // Read after the pages: another process may be making the file longer.
    const { size } = fstatSync(file)
    const needed = (lastPage + 1) * pageSize
    return size < needed ? `data.mdb is damaged: it has ${size} bytes of ${needed}` : undefined
  } finally {
    closeSync(file)
  }
}

function readMeta(file: number, position: number) {
  const page = Buffer.alloc(metaBytes)
  if (readSync(file, page, 0, metaBytes, position) < metaBytes) return undefined
  if (page.readUInt32LE(magicAt) !== magic) return undefined
  const pageSize = page.readUInt32LE(pageSizeAt)
  if (pageSize < 256 || pageSize > 65_536) return undefined
  const [lastPage, transaction] = [lastPageAt, transactionAt].map((at) => Number(page.readBigUInt64LE(at)))
  return { pageSize, lastPage: lastPage ?? 0, transaction: transaction ?? 0 }
}
