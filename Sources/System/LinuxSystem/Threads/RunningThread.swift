/// A thread of this process.
package struct RunningThread: Sendable, Hashable {
    /// The kernel's number of the thread, which `taskset` and `top -H` take.
    package let id: Int
    /// The first 15 bytes of the name that the thread was started with.
    package let name: String

    /// The running threads of this process, in the order of their numbers.
    package static func all() throws(SystemError) -> [RunningThread] {
        let folder = "/proc/self/task"
        return try Directory(folder).names().compactMap { Int($0) }.sorted().compactMap { id in
            // A thread that has ended meanwhile has no name.
            ProcessFile.text("\(folder)/\(id)/comm").map {
                RunningThread(id: id, name: $0.last == "\n" ? String($0.dropLast()) : $0)
            }
        }
    }
}
