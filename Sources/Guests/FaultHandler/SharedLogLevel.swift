package import LinuxSystem
package import Logging

/// The log level of a handler and of all its workers, which the handler can change while they run.
package final class SharedLogLevel: Sendable {
    private let memory: SharedMemory

    /// The place of the level among all levels.
    ///
    /// A hint of one word, which the handler writes and the workers read.
    private var word: UnsafeMutablePointer<Int64> {
        memory.piece(at: 0, byteCount: MemoryLayout<Int64>.size).bindMemory(to: Int64.self, capacity: 1)
    }

    /// Maps the file that a handler shares with its workers.
    package init(_ file: borrowing MemoryFile) throws(SystemError) {
        memory = try SharedMemory(file)
    }

    /// Makes the file.
    static func makeFile() throws(SystemError) -> MemoryFile { try MemoryFile(name: "log-level", byteCount: 4096) }

    /// The lowest level that is logged.
    package var level: Logger.Level {
        get {
            let all = Logger.Level.allCases
            let place = Int(clamping: word.pointee)
            return all.indices.contains(place) ? all[place] : .notice
        }
        set { word.pointee = Int64(Logger.Level.allCases.firstIndex(of: newValue) ?? 0) }
    }
}
