import Glibc
import SystemPackage

/// Reads and writes files as a whole.
package enum WholeFile {
    /// Reads all bytes of a regular file.
    ///
    /// A file of more than `limit` bytes is refused before memory is allocated for its contents.
    ///
    /// - Parameters:
    ///   - path: the path of the file.
    ///   - limit: the most bytes that the file may have.
    ///   - isSecret: whether to refuse a file that users outside of its group may read or change.
    package static func read(
        _ path: String,
        atMost limit: Int,
        isSecret: Bool = false
    ) throws(SystemError) -> [UInt8] {
        let file = try RegularFile(path, to: "read", access: O_RDONLY)
        guard !isSecret || !file.isOpenToOthers else {
            throw SystemError(
                "use \(path) as a secret",
                .permissionDenied,
                advice: "every user can read it: chmod o= \(path)"
            )
        }
        guard file.byteCount <= limit else {
            throw SystemError("read \(path)", .fileTooLarge, advice: "give a file of at most \(limit) bytes")
        }
        let raw = file.descriptor.raw
        var bytes = [UInt8](repeating: 0, count: file.byteCount)
        var filled = 0
        while filled < bytes.count {
            let count = try attempt("read \(path)") { () throws(Errno) in
                try kernel(.read) {
                    bytes.withUnsafeMutableBytes { bytes in
                        orErrno(Glibc.read(raw, bytes.baseAddress?.advanced(by: filled), bytes.count - filled))
                    }
                }
            }
            // The file was truncated while it was read.
            if count == 0 { break }
            filled += count
        }
        bytes.removeLast(bytes.count - filled)
        return bytes
    }

    /// Replaces a file, or creates it, with all of its bytes at once, and returns when the file is durable.
    ///
    /// No reader ever sees a part of the bytes. The mode is 0644, less the umask.
    ///
    /// The path must name a regular file or nothing. A symbolic link is not followed but refused.
    package static func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
        let name = try fileName(in: path)
        let directory = try Directory(folder(of: path))
        try directory.replace(name, with: bytes, by: temporaryName())
        try directory.sync()
    }

    /// Throws the error that ``replace(_:with:)`` would throw now, and changes nothing.
    package static func requireReplaceable(_ path: String) throws(SystemError) {
        let name = try fileName(in: path)
        try Directory(folder(of: path)).requireReplaceable(name, by: temporaryName())
    }

    private static func fileName(in path: String) throws(SystemError) -> String {
        guard let name = FilePath(path).lastComponent, name.kind == .regular else {
            throw SystemError("write '\(path)'", .invalidArgument, advice: "give the name of a file")
        }
        return name.string
    }

    private static func folder(of path: String) -> String {
        let folder = FilePath(path).removingLastComponent()
        return folder.isEmpty ? "." : folder.string
    }

    private static func temporaryName() -> String {
        ".pageferry-\(String(UInt64.random(in: 0...UInt64.max), radix: 16))"
    }
}
