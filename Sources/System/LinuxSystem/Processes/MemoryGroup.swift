import Outside

/// A memory control group (cgroup), which limits the memory of its processes.
package struct MemoryGroup: Hashable, Sendable {
    /// Bytes by which a full group may lie below its limit: the kernel charges each processor's memory in batches.
    private static let slack = 1 << 20

    /// The group's folder.
    package let path: String
    /// The name of the file with the group's limit.
    package let limitName: String
    private let usageName: String

    /// The groups of a process, from its own to the outermost one that is visible here.
    package static func all(of process: Int32) -> [MemoryGroup] {
        guard let groups = ProcessFile.text("/proc/\(process)/cgroup"),
            let mounts = ProcessFile.text("/proc/self/mountinfo")
        else { return [] }
        return all(groups: groups, mounts: mounts)
    }

    /// Reads the texts of `/proc/PID/cgroup` (cgroups(7)) and `/proc/PID/mountinfo` (proc(5)).
    static func all(groups: String, mounts: String) -> [MemoryGroup] {
        var found: [MemoryGroup] = []
        for line in groups.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let isUnified = fields[1].isEmpty
            guard isUnified || fields[1].split(separator: ",").contains("memory") else { continue }
            guard let mount = mount(isUnified: isUnified, in: mounts) else { continue }
            var names = fields[2].split(separator: "/")
            // The mount may show a part of the hierarchy only.
            let root = mount.root.split(separator: "/")
            guard names.starts(with: root), !names.contains("..") else { continue }
            names.removeFirst(root.count)
            while true {
                found.append(
                    MemoryGroup(
                        path: mount.point + names.map { "/\($0)" }.joined(),
                        limitName: isUnified ? "memory.max" : "memory.limit_in_bytes",
                        usageName: isUnified ? "memory.current" : "memory.usage_in_bytes"
                    )
                )
                guard names.popLast() != nil else { break }
            }
        }
        return found
    }

    /// Where the hierarchy of memory groups is mounted, and which group is the root of the mount.
    private static func mount(isUnified: Bool, in mounts: String) -> (point: Substring, root: Substring)? {
        for line in mounts.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), dash >= 5, fields.count > dash + 3 else { continue }
            let isMemory =
                isUnified
                ? fields[dash + 1] == "cgroup2"
                : fields[dash + 1] == "cgroup" && fields[dash + 3].split(separator: ",").contains("memory")
            if isMemory { return (fields[4], fields[3]) }
        }
        return nil
    }

    /// The group's limit in bytes; nil if it has none, or none that can be read.
    package var limit: Int? { bytes(in: limitName) }

    /// Whether the group has reached its limit.
    package var isFull: Bool {
        guard let limit, let usage = bytes(in: usageName) else { return false }
        return usage >= limit - min(limit / 8, MemoryGroup.slack)
    }

    private func bytes(in name: String) -> Int? {
        ProcessFile.text("\(path)/\(name)").flatMap { Int($0.filter { !$0.isWhitespace }) }
            .map { Untrusted($0).clamped(to: 0...(1 << 62)) }
    }
}
