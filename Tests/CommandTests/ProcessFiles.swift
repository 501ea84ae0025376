import Foundation

/// Files of /proc.
enum ProcessFiles {
    static func text(_ path: String) throws -> String { try String(contentsOfFile: path, encoding: .utf8) }

    /// The processes whose command line begins with this name.
    static func processes(named name: String) -> [Int32] {
        // /proc can always be listed; a process may have ended since.
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { Int32($0) } ?? []
        return all.filter { (try? text("/proc/\($0)/cmdline"))?.hasPrefix("\(name)\0") == true }
    }

    /// The number of descriptors that a process has open.
    static func descriptorCount(of process: Int32) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
    }
}
