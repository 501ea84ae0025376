import Foundation
import Testing

@Suite("The command probe", .timeLimit(.minutes(1)))
struct ProbeTests {
    private static let needsRoot = ConditionTrait.enabled(if: getuid() == 0, "only root can run a program as nobody")

    /// Runs `pageferry probe` as a user who may open no userfaultfd.
    private func probe(_ options: String...) throws -> Finished {
        try Executable.run(
            "/usr/bin/setpriv",
            ["--reuid", "65534", "--regid", "65534", "--clear-groups", Executable.pageferry, "probe"] + options
        )
    }

    @Test("without permission says that it could not ask for the features, why, and what to do", needsRoot)
    func unpermitted() throws {
        let finished = try probe()
        #expect(finished.status == 1, "\(finished)")
        let lines = finished.output.split(separator: "\n")
        let asked = try #require(lines.firstIndex { $0.contains("userfaultfd features") }, "\(finished)")
        #expect(lines[asked].hasPrefix("?  "), "\(finished)")
        #expect(lines[asked].contains("cannot ask: Operation not permitted"), "\(finished)")
        #expect(lines[asked + 1].contains("→ run as root, or as a user with access: setfacl"), "\(finished)")
        let feature = try #require(lines.first { $0.contains("MISSING_HUGETLBFS") })
        #expect(feature.hasPrefix("?  "), "\(finished)")
    }

    @Test("says of a feature that could not be asked for neither that it is there nor that it is missing", needsRoot)
    func unknown() throws {
        let finished = try probe("--json")
        let findings = try #require(
            try JSONSerialization.jsonObject(with: Data(finished.output.utf8)) as? [String: [[String: Any]]]
        )["findings"]
        let feature = try #require(findings?.first { ($0["name"] as? String)?.contains("MISSING_SHMEM") == true })
        #expect(feature["ok"] is NSNull)
    }
}
