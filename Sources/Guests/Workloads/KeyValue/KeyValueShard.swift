/// The part of a table that lies in one thread's pages.
///
/// A key belongs to the thread of its line number. In that thread's pages, the key's hash names its bucket. If that
/// bucket was full, the entry is in the first following page that had room.
struct KeyValueShard {
    let access: PageAccess
    let thread: Int
    let threadCount: Int
    /// The number of pages that belong to the thread.
    let pageCount: Int

    /// The outcome of a search.
    enum Search {
        /// The entry was found in this page.
        case found(KeyValueEntry, page: Int)
        /// The entry is missing, although the table was filled with it; it belongs in this page.
        case missing(page: Int)
        /// A page that had to be searched is wrong, and was noted as wrong.
        case wrong
    }

    /// The thread that a key belongs to.
    @inline(__always)
    static func owner(of key: UInt64, threadCount: Int) -> Int {
        Int(truncatingIfNeeded: (key & (1 << 40 - 1)) % UInt64(threadCount))
    }

    /// The number in the workload of one of the thread's pages.
    @inline(__always)
    func global(_ local: Int) -> Int {
        local &* threadCount &+ thread
    }

    @inline(__always)
    private func home(_ key: UInt64) -> Int {
        let hash = mixed(key ^ access.format.seed)
        return Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(pageCount)).high)
    }

    /// Searches for the entry of a key.
    ///
    /// - Parameter trusting: whether pages are searched without being checked against the ledger first.
    @inline(__always)
    func search(_ key: UInt64, trusting: Bool = false) -> Search {
        let home = home(key)
        var local = home
        repeat {
            let page = global(local)
            guard let address = trusting ? access.arrive(at: page) : access.checked(page) else { return .wrong }
            let bucket = KeyValueBucket(page: address, pageSize: access.format.pageSize)
            if let entry = bucket.find(key) { return .found(entry, page: page) }
            guard bucket.overflows else { break }
            local = local &+ 1 == pageCount ? 0 : local &+ 1
        } while local != home
        return .missing(page: global(home))
    }

    /// Takes room for an entry, while the table is filled.
    ///
    /// - Returns: nil if no page has room.
    func reserve(_ key: UInt64, valueLength: Int) -> KeyValueEntry? {
        let home = home(key)
        var local = home
        repeat {
            let address = access.arrive(at: global(local))
            let bucket = KeyValueBucket(page: address, pageSize: access.format.pageSize)
            if let entry = bucket.reserve(valueLength: valueLength) { return entry }
            bucket.setOverflow()
            local = local + 1 == pageCount ? 0 : local + 1
        } while local != home
        return nil
    }

    /// Writes the header of every page, once the table is filled.
    func seal() {
        for local in 0..<pageCount {
            let page = global(local)
            access.ledger[page] = 1
            access.format.seal(access.arrive(at: page), index: page, version: 1)
        }
    }
}
