import Identity
import Switchover
import Testing

@Suite("The walk fails")
struct MutantTests {
    @Test("for each mutant, with the shortest path to the fault", .timeLimit(.minutes(20)), arguments: Mutant.all)
    func mutant(_ mutant: Mutant) throws {
        for property in mutant.breaks {
            let start = World(mutant.setting, driver: mutant.driver)
            let walk = Walk(from: start, by: mutant.behaviour, checking: [property])
            let finding = try #require(walk.finding, "\(mutant.testDescription) survives \(property)")
            print("\(mutant.testDescription): \(finding)")
            #expect(finding.trace.count <= 29)
        }
    }

    @Test("on every property for some mutant")
    func everyProperty() {
        #expect(Set(Mutant.all.flatMap(\.breaks)) == Set(Property.allCases))
    }
}
