import Foundation

/// A folder that only this user can enter.
struct TemporaryFolder {
    let path: String

    init() throws {
        var template = Array("/tmp/pageferry-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw Failure("cannot make a folder in /tmp: \(String(cString: strerror(errno)))")
        }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    func remove() {
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            Terminal.say("pageferry: cannot remove \(path): \(error)")
        }
    }
}
