import Foundation
import TestProcess
import Testing

/// Checks that the compiler refuses to run a workload without the proof that its devices have loaded.
@Suite("A run permit")
struct RunPermitTests {
    /// Compiles a text against the built modules, up to the check of consumed values.
    private func compiles(_ text: String) throws -> (status: Int32, errors: String) {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("permit-\(UUID().uuidString).swift")
        try text.write(to: file, atomically: false, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: file) }
        let products = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        // The C modules of the dependencies.
        let checkouts = products.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(
            "checkouts"
        )
        let headers = ["swift-system/Sources/CSystem", "swift-numerics/Sources/_NumericsShims"].flatMap {
            ["-Xcc", "-I\(checkouts.path)/\($0)/include"]
        }
        let arguments =
            [
                "swiftc", "-emit-sil", "-o", "/dev/null", "-swift-version", "6", "-package-name",
                RunPermitTests.packageName, "-I", products.appendingPathComponent("Modules").path,
            ]
            + headers + ["-Xcc", "-fmodule-map-file=\(products.path)/CShims.build/module.modulemap", file.path]
        let (status, errors) = try TestProcess.run("/usr/bin/env", arguments, takesErrors: true)
        return (status, errors)
    }

    /// The name by which SwiftPM tells this package from others: that of its folder, as an identifier.
    private static var packageName: String {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().lastPathComponent.lowercased()
        let name = folder.replacing(/[^a-z0-9_]/, with: "_")
        return name.first?.isNumber == true ? "_\(name.dropFirst())" : name
    }

    @Test("comes only from loaded devices, and only the controller can make one", .timeLimit(.minutes(2)))
    func minting() throws {
        let controller = try compiles(
            """
            @_spi(Controller) import Guest
            func start(_ workload: any Workload, _ proof: consuming DevicesLoaded) throws {
                _ = try workload.run(RunPermit(proof))
            }
            """
        )
        #expect(controller.status == 0, "\(controller.errors)")
        for early in [
            "_ = try workload.run(RunPermit())", "_ = try workload.run(RunPermit(DevicesLoaded()))",
            "_ = try workload.run(RunPermit(.inPlace()))",
            "_ = try workload.run(RunPermit(try workload.devices.load([])))",
        ] {
            let result = try compiles("import Guest\nfunc start(_ workload: any Workload) throws { \(early) }\n")
            #expect(result.status != 0, "\(early) compiles")
            #expect(result.errors.contains("inaccessible"), "\(result.errors)")
        }
    }

    @Test("allows only one start", .timeLimit(.minutes(1)))
    func once() throws {
        let twice = try compiles(
            """
            import Guest
            func start(_ workload: any Workload, _ permit: consuming RunPermit) throws {
                _ = try workload.run(permit)
                _ = try workload.run(permit)
            }
            """
        )
        #expect(twice.status != 0)
        #expect(twice.errors.contains("consumed more than once"), "\(twice.errors)")
    }
}
