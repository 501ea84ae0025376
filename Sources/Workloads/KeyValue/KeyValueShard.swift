/// The part of a table that lives in one thread's pages: a key belongs to the thread of its line number, and within
/// its pages to the bucket that its hash names, or to the pages after that if it was full.
struct KeyValueShard {
    let access: PageAccess
    let thread: Int
    let threadCount: Int
    /// Pages that the thread owns.
    let pageCount: Int

    /// What a search came to.
    enum Search {
        /// The entry, and the page it is in.
        case found(KeyValueEntry, page: Int)
        /// There is none, though the table was made with it; this is the page where it belongs.
        case missing(page: Int)
        /// A page on the way is wrong, and noted as that.
        case wrong
    }

    /// The thread that a key belongs to.
    @inline(__always)
    static func owner(of key: UInt64, threadCount: Int) -> Int {
        Int(truncatingIfNeeded: (key & (1 << 40 - 1)) % UInt64(threadCount))
    }

    /// A page of the thread in the workload's numbering.
    @inline(__always)
    func global(_ local: Int) -> Int {
        local &* threadCount &+ thread
    }

    @inline(__always)
    private func home(_ key: UInt64) -> Int {
        let hash = mixed(key ^ access.format.seed)
        return Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(pageCount)).high)
    }

    /// Looks a key up.
    ///
    /// - Parameter trusting: take pages as they are instead of checking each against the ledger first.
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

    /// Makes an entry in a table that is being filled.
    ///
    /// - Returns: nil when no page has room.
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

    /// Gives every page of a filled table its header.
    func seal() {
        for local in 0..<pageCount {
            let page = global(local)
            access.ledger[page] = 1
            access.format.seal(access.arrive(at: page), index: page, version: 1)
        }
    }
}
