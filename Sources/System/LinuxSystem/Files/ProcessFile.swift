import CShims
import Glibc
import SystemPackage

/// Small files that the kernel generates as they are read: /proc and /sys.
package enum ProcessFile {
    /// Reads a file's text.
    package static func read(_ path: String) throws(SystemError) -> String {
        try attempt("read \(path)", adviceOn: SystemError.advice(onShortage:)) { () throws(Errno) in
            let descriptor = OwnedDescriptor(try kernel(.open) { shim_open(path, O_RDONLY | O_CLOEXEC) })
            let raw = descriptor.raw
            var text: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = try kernel(.read) { orErrno(Glibc.read(raw, &buffer, buffer.count)) }
                guard count > 0 else { return String(decoding: text, as: UTF8.self) }
                text += buffer[..<count]
            }
        }
    }

    /// Reads a file's text; nil if the file cannot be read.
    package static func text(_ path: String) -> String? {
        // For callers to whom every failure means the same as a file that does not exist.
        try? read(path)
    }

    /// Bytes of memory available without swapping (MemAvailable of /proc/meminfo); nil if they cannot be read.
    package static var availableMemory: Int? { text(memoryPath).flatMap { availableMemory(in: $0) } }

    /// The file in which the kernel reports the host's memory.
    package static let memoryPath = "/proc/meminfo"

    /// Finds the line `MemAvailable:   123 kB` in the text of /proc/meminfo, and returns its value in bytes.
    package static func availableMemory(in text: String) -> Int? {
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        guard let fields = line?.split(separator: " "), fields.count == 3, let kibibytes = Int(fields[1]) else {
            return nil
        }
        return kibibytes << 10
    }
}
