import Foundation
import TestProcess

/// The reason why a test cannot continue.
package struct RigFailure: Error, CustomStringConvertible {
    /// One line, and the output until then.
    package let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Files of the source tree.
enum RigFiles {
    private static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../..")

    static func script(_ name: String) -> String { root.appendingPathComponent("Scripts/\(name)").path }
    static func fixture(_ name: String) -> String { root.appendingPathComponent("Tests/Fixtures/\(name)").path }
}

/// Programs that run until they exit.
enum Tool {
    /// Runs a program.
    ///
    /// - Returns: its output without the last newline.
    static func run(_ path: String, _ arguments: [String]) throws(RigFailure) -> String {
        let (status, output): (Int32, String)
        do {
            (status, output) = try TestProcess.run(path, arguments, takesErrors: true)
        } catch {
            throw RigFailure("cannot run \(path): \(error)")
        }
        let text = output.trimmingCharacters(in: .newlines)
        guard status == 0 else { throw RigFailure(text) }
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
