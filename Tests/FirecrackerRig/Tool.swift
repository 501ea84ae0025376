import Foundation

/// Why a test cannot go on.
public struct RigFailure: Error, CustomStringConvertible {
    /// One line, and what was printed until then.
    public let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Files of the source tree.
enum RigFiles {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func script(_ name: String) -> String { root.appendingPathComponent("Scripts/\(name)").path }
    static func fixture(_ name: String) -> String { root.appendingPathComponent("Tests/Fixtures/\(name)").path }
}

/// Programs that run to their end.
enum Tool {
    /// Runs a program.
    ///
    /// - Returns: its output without the last newline.
    static func run(_ path: String, _ arguments: [String]) throws(RigFailure) -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        do {
            try process.run()
        } catch {
            throw RigFailure("cannot run \(path): \(error)")
        }
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            .trimmingCharacters(in: .newlines)
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw RigFailure(text) }
        return text
    }

    /// Builds a fixture into a folder.
    static func build(_ fixture: String, into folder: String, _ options: String...) throws(RigFailure) -> String {
        let program = "\(folder)/\(fixture).program"
        if access(program, X_OK) == 0 { return program }
        _ = try run("/usr/bin/env", ["gcc"] + options + [RigFiles.fixture(fixture), "-o", program])
        return program
    }
}
