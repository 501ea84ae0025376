import Foundation
import OwnThread
import QMP
import Testing

@Suite("A migration that compresses pushed pages", .ownThread, .serialized, .timeLimit(.minutes(2)))
struct CompressedMigrationTests {
    private func compression(_ ferrying: Ferrying) async throws -> JSONValue? {
        try await ferrying.source.command("pageferry-report")["source"]?["compression"]
    }

    private func expectMoved(_ ferrying: Ferrying) async throws {
        try await ferrying.source.wait(for: "completed")
        try await ferrying.destination.wait(for: "completed")
        #expect(ferrying.wrongPages() == [])
    }

    @Test(arguments: ["lz4", "zstd"])
    func `reports what it has compressed`(codec: String) async throws {
        let ferrying = try await Ferrying()
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["multifd-compression": .string(codec)])
        try await ferrying.migrate()
        try await expectMoved(ferrying)
        let compression = try #require(try await compression(ferrying))
        #expect(compression["setting"] == .string(codec))
        #expect(compression["codec"] == .string(codec))
        let before = try #require(compression["bytes_before"]?.integer)
        let after = try #require(compression["bytes_after"]?.integer)
        #expect(before > 0 && after > 0 && after < before)
        #expect(try #require(compression["cpu_us"]?.double) > 0)
        #expect(try #require(compression["runs"]?.integer) > 0)
    }

    @Test func `pushes pages as they are to a destination that cannot inflate them, and says so`() async throws {
        let ferrying = try await Ferrying(older: true)
        defer { ferrying.end() }
        try await ferrying.source.command("migrate-set-parameters", ["multifd-compression": "zstd"])
        try await ferrying.migrate()
        try await ferrying.source.wait(
            forLine: "the destination does not take pages compressed by zstd; pages are pushed as they are"
        )
        try await expectMoved(ferrying)
        let compression = try await compression(ferrying)
        #expect(compression?["setting"] == "zstd")
        #expect(compression?["codec"] == "none")
    }

    @Test(arguments: ["lz4", "zstd"])
    func `continues over the next link after a broken one`(codec: String) async throws {
        let ferrying = try await Ferrying(recovering: .seconds(60))
        defer { ferrying.end() }
        // A slow push, so that most pages are missing when the link breaks.
        try await ferrying.source.command(
            "migrate-set-parameters",
            ["multifd-compression": .string(codec), "max-postcopy-bandwidth": 20_000]
        )
        try await ferrying.migrate()
        try await ferrying.source.wait(for: "postcopy-active")
        #expect(try await soon { try await compression(ferrying)?["runs"]?.integer ?? 0 > 0 })
        ferrying.relay.cutAll()
        #expect(try await soon { ferrying.source.passed.suffix(2) == ["postcopy-recover", "postcopy-active"] })
        try await ferrying.source.command("migrate-set-parameters", ["max-postcopy-bandwidth": 0])
        try await expectMoved(ferrying)
    }
}
