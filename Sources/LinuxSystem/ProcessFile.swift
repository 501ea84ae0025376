import CShims
import Glibc
import SystemPackage

/// Small files that the kernel makes up as they are read: /proc and /sys.
public enum ProcessFile {
    /// A file's text, or nil where it cannot be read.
    public static func text(_ path: String) -> String? {
        guard let raw = try? kernel(.open, { shim_open(path, O_RDONLY | O_CLOEXEC) }) else { return nil }
        let descriptor = OwnedDescriptor(raw)
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while let count = try? kernel(.read, { orErrno(read(descriptor.raw, &buffer, buffer.count)) }), count > 0 {
            text += buffer[..<count]
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Bytes of memory that can be had without swapping: MemAvailable of /proc/meminfo; nil where it is not told.
    public static var availableMemory: Int? { text("/proc/meminfo").flatMap { availableMemory(in: $0) } }

    /// Finds the line `MemAvailable:   123 kB`.
    static func availableMemory(in text: String) -> Int? {
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
        guard let fields = line?.split(separator: " "), fields.count == 3, let kibibytes = Int(fields[1]) else {
            return nil
        }
        return kibibytes << 10
    }
}
