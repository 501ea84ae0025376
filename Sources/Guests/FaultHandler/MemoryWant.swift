import LinuxSystem
import PageFetcher

/// What a guest's pages wait for, where it is lacking, and how to get some, as text.
struct MemoryWant: CustomStringConvertible {
    let description: String

    /// Looks for what is full.
    ///
    /// The kernel charges a page to the memory group of the guest's process, and page tables to that of this process.
    init(_ shortage: PageFetcher.Shortage, of process: Int32) {
        switch shortage {
        case .hugePages:
            description =
                "a huge page: the pool of huge pages of 2 MiB is empty, all \(HugePagePool.total) are in use or reserved; "
                + HugePagePool.remedy(adding: 1)
        case .memory:
            let processes = (process > 0 ? [process] : []) + (PeerProcess.Birth.own.map { [$0.id] } ?? [])
            let groups = processes.flatMap { MemoryGroup.all(of: $0) }
            if let full = groups.first(where: \.isFull), let limit = full.limit {
                description =
                    "memory: the cgroup \(full.path) is at its limit of \(limit >> 20) MiB; raise \(full.limitName), or end "
                    + "something in the cgroup"
            } else {
                let rest = ProcessFile.availableMemory.map { "\($0 >> 20) MiB are available on this host" }
                description = "memory: \(rest ?? "this host has none"); free some"
            }
        }
    }
}
