/** A store between whose archives and their users something stands. */
import type { Archive, Doc, Store } from '../../server/storage/contract.ts'

/** The same store; `change` says which calls of its archives are others. */
export function wrapped(
  inner: Store,
  change: <T extends Doc>(archive: Archive<T>) => Partial<Archive<T>>,
): Store {
  const wrap = <T extends Doc>(archive: Archive<T>): Archive<T> => ({
    append: (owner, entry) => archive.append(owner, entry),
    page: (owner, q) => archive.page(owner, q),
    replace: (owner, id, doc) => archive.replace(owner, id, doc),
    remove: (owner, q) => archive.remove(owner, q),
    owners: () => archive.owners(),
    ...change(archive),
  })
  return {
    driver: inner.driver,
    open: (host, module) => {
      const opened = inner.open(host, module)
      return { ...opened, archive: (name, opts) => wrap(opened.archive(name, opts)) }
    },
    purgeOwner: (host, owner) => inner.purgeOwner(host, owner),
    healthy: () => inner.healthy(),
    close: () => inner.close(),
  }
}
