import Foundation
import LinuxSystem

/// A folder that only this user can enter, and that is removed even if a signal ends this process.
struct TemporaryFolder {
    let path: String
    private let leftover: Int

    init() throws {
        EndSignals.watch()
        var template = Array("/tmp/pageferry-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw Failure("cannot make a folder in /tmp: \(String(cString: strerror(errno)))")
        }
        let path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        self.path = path
        leftover = Leftovers.note { TemporaryFolder.remove(path) }
    }

    func remove() {
        Leftovers.forget(leftover)
        TemporaryFolder.remove(path)
    }

    private static func remove(_ path: String) {
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            Terminal.say("pageferry: cannot remove \(path): \(error)")
        }
    }
}
